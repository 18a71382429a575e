"""Who makes the shards of a data set: processes of this machine, the ranks of torchrun, a Ray cluster. The bytes are the same."""
