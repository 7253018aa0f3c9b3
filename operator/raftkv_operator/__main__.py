"""`python -m raftkv_operator`: the same as the `raftkv-operator` command."""

from raftkv_operator.main import main

main()
