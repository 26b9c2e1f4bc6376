"""What clients ask for: jobs submitted, canceled and followed, the fleet, blobs."""
