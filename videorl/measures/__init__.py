"""What the papers measure of folders of videos, without a policy: VBench, FVD, win rates, power."""
