"""What is told of a running hub: metrics, health, logs."""
