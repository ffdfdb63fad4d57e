"""Model families: the Family protocol, and one package or module a family."""
