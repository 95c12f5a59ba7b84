# The lines that CI runs, by name. `just` is a convenience: every recipe is one command that can be typed.

# Everything CI runs.
ci:
    .ci/run

# Every test.
test *ARGS:
    ./test {{ARGS}}

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

deny:
    cargo deny --locked check bans licenses sources

# The story a newcomer sees.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}
