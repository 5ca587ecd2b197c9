select generation from key_generation
