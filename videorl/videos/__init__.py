"""What a video is: the frames that are shown, their times, their rate. All readers ask here."""
