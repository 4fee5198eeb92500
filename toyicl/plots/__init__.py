"""Drawing: figure style, captions, and the panels that figures share."""
