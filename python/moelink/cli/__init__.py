"""The `moelink` command: demo, bench and doctor."""
