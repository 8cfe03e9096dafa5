"""Files the program ships: schemas, prompts, icons, translations."""
