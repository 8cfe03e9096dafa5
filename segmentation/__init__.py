"""From fixations to masks: the study folder, pseudo-masks, explanations, training, prediction."""
