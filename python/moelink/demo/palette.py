"""The colours of the terminal and of the picture."""

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
PAPER = "#ffffff"
SINGLE = "#f2b950"  # the single process
PARALLEL = "#1d5fa8"  # the ranks
GOOD = "#2f9e63"
BAD = "#cf3a3a"

# Parts of a step: what the exchange costs in blues, the model's own work in warm and grey tones.
PARTS = {
    "dispatch": "#1d5fa8",
    "combine": "#5b9bd5",
    "wait": "#c9dcef",
    "expert": "#f2b950",
    "all-reduce": "#b8a9d9",
    "dense": "#cbd2d9",
}
