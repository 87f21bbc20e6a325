"""`python -m moelink.demo`."""

import sys

from moelink.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
