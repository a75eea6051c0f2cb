"""Generators that attack in one forward pass, and how they are trained.

Source: Goel, Shah, Suresh (WAGAN); Xiao et al. 2018 (AdvGAN). Departures are in docs/wagan.md.
"""
