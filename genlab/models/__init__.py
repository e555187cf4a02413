"""Networks with their architecture dataclass and their operations, from pixels to pixels."""
