"""The terminal and this process: progress, text that is shown, interruptions, stalls."""
