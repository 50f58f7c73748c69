"""The former name of `python -m deployments.local`, kept for users' scripts."""

from deployments.local import PROG, main
from rollmill.config.command_line import report_errors

if __name__ == "__main__":
    with report_errors(PROG):
        main()
