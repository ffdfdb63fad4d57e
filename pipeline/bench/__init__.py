"""`pagelake bench`: what each stage costs on this machine, beside what could be had."""
