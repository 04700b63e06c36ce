"""What an op must move, what it moves when it is cut up one way or another, and which way is best on a device.

pebble, convolution, concatenated   lower bounds of traffic, and tiles that reach them: the theory, and its checks
gated                               what the gated ops of this package must move, and what they move fused or not
blocks, cpu_time                    the CPU path: what a block of rows touches, and how long it takes
gpu_time, gpu_tiles                 the fused kernel: what a tile needs and how long it takes
device, known_gpus                  caches, memories and rates
candidates, tuner, store            enumerated, pruned, ranked; the short list measured; the winner kept on disk
block_rows, tile_choice             what is chosen, on a CPU and on a GPU
"""
