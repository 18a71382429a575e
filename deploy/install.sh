#!/usr/bin/env bash
# Install duovox and its server into a new virtual environment: the one way for the container, the service and check.sh.
#
#     deploy/install.sh /opt/duovox
#
# TORCH names another version of torch than the one that was tried, PYTHON another Python; INDEX adds a package index, such as the one
# with PyTorch's builds for processors alone, which are a tenth of the size.
set -euo pipefail
folder=${1:?usage: deploy/install.sh FOLDER}
source=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d) # building leaves things behind
trap 'rm -rf "$copy"' EXIT
cp -r "$source"/{pyproject.toml,README.md,LICENSE,src} "$copy"

"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir ${INDEX:+--extra-index-url "$INDEX"} "${TORCH:-torch==2.13.0}"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "${copy}[serve]"
"$folder/bin/duovox" serve --help > /dev/null
