"""What every room uses: files, progress, text, and checks of arguments."""
