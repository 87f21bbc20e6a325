"""What the exit code of the `moelink` command tells its caller."""

OK = 0  # everything asked for was done and, where something is checked, was right
VERIFICATION_FAILED = 1  # it ran, but a result differs from the reference
USAGE = 2  # the command line is wrong
CANNOT = 3  # this build or this machine cannot do what was asked
RUNTIME = 4  # it broke while running: a rank died, a wait expired, the system refused
INTERRUPTED = 130  # Ctrl-C

HELP = """exit codes:
  0  done, and every checked result was right
  1  a result differs from the reference
  2  the command line is wrong
  3  this build or this machine cannot do it (`moelink doctor` says why)
  4  it failed while running (a rank died, a wait expired, ...)
"""
