"""What triggers are, without the world: ports and time maths."""
