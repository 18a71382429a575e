"""The experiment augment: does generated speech help a keyword spotter? Mixtures of real and generated clips, tried out."""
