"""What this machine has for the kinds, and what brings the rest."""
