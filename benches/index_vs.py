"""The other side of index_vs.rs: vector libraries from PyPI, told by lines on stdin what to do.

    pip install numpy usearch hnswlib faiss-cpu

`build NAME` makes an index of the vectors in FOLDER/items.f32 and answers with seconds and
megabytes; `search NAME COUNT` looks for the COUNT nearest of every query in FOLDER/queries.f32,
one after the other on one thread, writes them to FOLDER/found.u32 and answers with seconds.
`rclip FOLDER` alone is a whole search as rclip does it: every vector out of SQLite, one product.
"""

import os
import sqlite3
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np


def read(folder, name, dim):
    return np.fromfile(f"{folder}/{name}", dtype=np.float32).reshape(-1, dim)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Usearch:
    def __init__(self, vectors, dtype):
        from usearch.index import Index

        self.index = Index(ndim=vectors.shape[1], metric="ip", dtype=dtype)
        self.index.add(np.arange(len(vectors)), vectors, threads=2)

    def search(self, query, count):
        self.index.expansion_search = count
        return self.index.search(query, count, threads=1).keys


class Hnswlib:
    def __init__(self, vectors):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), ef_construction=200, M=16)
        self.index.add_items(vectors, num_threads=2)
        self.index.set_num_threads(1)

    def search(self, query, count):
        self.index.set_ef(count)
        return self.index.knn_query(query[None], k=count)[0][0]


class FaissHnsw:
    def __init__(self, vectors):
        import faiss

        faiss.omp_set_num_threads(2)
        self.index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 100
        self.index.add(vectors)
        faiss.omp_set_num_threads(1)

    def search(self, query, count):
        self.index.hnsw.efSearch = count
        return self.index.search(query[None], count)[1][0]


class FaissFlat:
    def __init__(self, vectors):
        import faiss

        self.index = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self.index.train(vectors[:20000])
        self.index.add(vectors)
        faiss.omp_set_num_threads(1)

    def search(self, query, count):
        return self.index.search(query[None], count)[1][0]


MAKERS = {
    "usearch-f16": lambda vectors: Usearch(vectors, "f16"),
    "usearch-i8": lambda vectors: Usearch(vectors, "i8"),
    "hnswlib": Hnswlib,
    "faiss-hnsw": FaissHnsw,
    "faiss-scan-i8": FaissFlat,
}


def serve(folder, dim):
    vectors, queries = read(folder, "items.f32", dim), read(folder, "queries.f32", dim)
    made = {}
    for line in sys.stdin:
        verb, name, *count = line.split()
        before, begun = resident(), time.perf_counter()
        if verb == "build":
            made[name] = MAKERS[name](vectors)
            print(time.perf_counter() - begun, resident() - before, flush=True)
            continue
        count = int(count[0])
        found = [made[name].search(query, count) for query in queries]
        seconds = time.perf_counter() - begun
        np.asarray(found, dtype=np.uint32).tofile(f"{folder}/found.u32")
        print(seconds, flush=True)


def fill(folder, photos):
    """A database like rclip's: a row and 512 float32 a photo."""
    database = sqlite3.connect(f"{folder}/rclip.db")
    database.execute("CREATE TABLE images (filepath TEXT, deleted BOOLEAN, vector BLOB)")
    random = np.random.default_rng(1)
    for first in range(0, photos, 10000):
        count = min(10000, photos - first)
        vectors = random.standard_normal((count, 512), dtype=np.float32)
        rows = ((f"/photos/{first + i}.jpg", None, v.tobytes()) for i, v in enumerate(vectors))
        database.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
    database.commit()


def rclip(folder):
    """Reads every vector, as rclip does for each search, and returns the best ten."""
    begun = time.perf_counter()
    database = sqlite3.connect(f"{folder}/rclip.db")
    rows = database.execute("SELECT filepath, vector FROM images WHERE deleted IS NULL")
    paths, vectors = [], []
    for path, vector in rows:
        paths.append(path)
        vectors.append(np.frombuffer(vector, np.float32))
    query = np.ones(512, dtype=np.float32)
    scores = np.stack(vectors) @ query
    best = [paths[i] for i in np.argsort(scores)[::-1][:10]]
    assert len(best) == 10
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", folder, dim]:
            serve(folder, int(dim))
        case ["fill", folder, photos]:
            fill(folder, int(photos))
        case ["rclip", folder]:
            rclip(folder)
