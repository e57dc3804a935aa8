"""What is known of TFLite operators."""
