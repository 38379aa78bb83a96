"""What samples the policies that `videorl measure` compares."""
