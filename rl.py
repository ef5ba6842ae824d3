import resource
print(resource.getrlimit(resource.RLIMIT_NOFILE))
import mlx_lm
print(resource.getrlimit(resource.RLIMIT_NOFILE))
