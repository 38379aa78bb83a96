"""Where a run is shown beside its own folder: TensorBoard, Weights & Biases, Trackio, MLflow.

No tracker can end a run or slow it down, see `videorl.trackers.behind`.
"""
