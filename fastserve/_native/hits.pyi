from fastserve.api.hits_py import HitPath as HitPath
from fastserve.api.hits_py import Kind as Kind
from fastserve.api.hits_py import Lane as Lane
from fastserve.api.hits_py import Load as Load
