"""The SVG (signature value generation module): turns an activation of the SAM into signature values in the HSM."""
