"""`python -m sarrapipe` is `sarrapipe`."""

import sys

from sarrapipe.cli.main import main

sys.exit(main())
