"""Training as a compiled program: steps, loops, state, devices and clusters."""
