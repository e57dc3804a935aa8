"""Packaging of tfptq. docs/targets.md names the versions of TensorFlow and numpy that were tried."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version that ``tfptq/version.py`` states."""
    scope: dict[str, str] = {}
    exec((ROOT / "tfptq" / "version.py").read_text(encoding="utf-8"), scope)
    return scope["__version__"]


# TFMOT pins absl-py below 2, so that only those who want it have it.
TFMOT_REQUIRES = ["tensorflow-model-optimization>=0.8", "tf_keras>=2.16"]

# MkDocs 2 has no plugins, and Material for MkDocs is for 1.
DOCS_REQUIRES = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=1.0"]

TEST_REQUIRES = [
    *TFMOT_REQUIRES,
    "hypothesis>=6.100",
    "import-linter>=2.10",
    "ipykernel>=6.29",
    "matplotlib>=3.8",
    "mypy>=1.15",
    "nbclient>=0.10",
    "pillow>=10",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.15",
    "scikit-learn>=1.4",
    "setuptools>=70.1",
    "tflite-micro",
]

BENCH_REQUIRES = [
    "brotli>=1.1",
    "ethos-u-vela>=5.0",
    "keras-hub>=0.26",
    "litert-quantizer>=0.11",
    "matplotlib>=3.8",
    "pillow>=10",
    "scikit-learn>=1.4",
    "tf_keras>=2.16",
    "tflite-micro",
    "websocket-client>=1.8",
]

WEB_REQUIRES = ["pillow>=10", "pytest>=8", "scikit-learn>=1.4", "websocket-client>=1.8"]

setup(
    name="tfptq",
    version=read_version(),
    description="Post-training quantization of Keras 3 models into int8 and int4 TFLite files",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["keras", "litert", "post-training quantization", "quantization", "tflite"],
    project_urls={
        "PTQ-SL": "https://arxiv.org/abs/2110.07809",
        "Shift scaler (WES)": "https://arxiv.org/abs/2008.05767",
        "Attention Round": "https://arxiv.org/abs/2207.03088",
    },
    packages=find_packages(include=["tfptq", "tfptq.*"]),
    package_data={"tfptq": ["py.typed", "*.pyi", "**/*.css", "**/*.fbs", "**/*.jinja", "**/*.js", "**/*.json"]},
    python_requires=">=3.10",
    install_requires=[
        "absl-py>=1.4",
        "ai-edge-litert>=2.3",
        "flatbuffers>=24.3",
        "h5py>=3.10",
        "jinja2>=3.1",
        "keras>=3.0",
        "numpy>=1.26",
        "rich>=13.7",
        "tensorflow>=2.16",
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "beam": ["apache-beam>=2.60"],
        "images": ["pillow>=10"],
        "micro": ["tflite-micro"],
        "plots": ["matplotlib>=3.8"],
        "tfmot": TFMOT_REQUIRES,
        "test": TEST_REQUIRES,
        "docs": DOCS_REQUIRES,
        "bench": BENCH_REQUIRES,
        "web": WEB_REQUIRES,
    },
    entry_points={
        "console_scripts": [
            "tfptq = tfptq.cli.main:main",
            "tfptq-evaluate = tfptq.cli.evaluate:main",
            "tfptq-inspect = tfptq.cli.inspect:main",
            "tfptq-keras-to-tflite = tfptq.cli.convert:main",
            "tfptq-search = tfptq.cli.search:main",
            "tfptq-sweep-granularity = tfptq.cli.sweep:main",
            "tfptq-to-c = tfptq.cli.to_c:main",
            "tfptq-verify = tfptq.cli.verify:main",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Software Development :: Embedded Systems",
        "Typing :: Typed",
    ],
)
