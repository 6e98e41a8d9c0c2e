# Sourced by the install scripts beside it.

# complete VENV REQUIREMENTS PEERS: builds (or completes) an environment. Safe to run again: what is already there at the
# pinned version is kept. PEERS is a pattern of the requirements' lines that are installed alone. PYTHON picks the
# interpreter.
complete() {
    local venv="$1" requirements="$2" peers="$3"
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
    if [[ ! -x "$venv/bin/python" ]]; then
        "${PYTHON:-python3}" -m venv "$venv"
    fi
    # torch first, with its dependencies; then the peers alone, checked against their hashes.
    "${pip[@]}" -r <(grep -Ev "$peers" "$requirements")
    "${pip[@]}" --no-deps --require-hashes -r <(grep -E "$peers" "$requirements")
}
