"""What a training will take, told before it starts: memory, seconds, and what to change when it does not fit."""
