"""VisionReward (arXiv 2412.21059): a checklist of questions with linear weights."""
