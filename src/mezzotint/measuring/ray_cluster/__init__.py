"""The executor on a Ray cluster: of this machine's cores, or of many machines and GPUs."""

from mezzotint.measuring.ray_cluster.cluster import RayCluster, RayExecutor

__all__ = ["RayCluster", "RayExecutor"]
