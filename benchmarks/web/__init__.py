"""LiteRT.js in headless Chromium."""
