"""Model families: the Family protocol, and one package or module a family."""

import os

# OpenMP reads this when torch is first imported. Threads that spin while they wait steal the cores
# that draw pages beside the model.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
