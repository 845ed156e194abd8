"""What events, topics and brokers are, without any transport."""
