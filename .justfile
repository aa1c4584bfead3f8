# Recipes for `just`; each is one cargo command, so nobody needs `just` to work here.

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets -- -D warnings

test:
    cargo nextest run --workspace
    cargo test --doc --workspace

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --workspace

# The advisory database is fetched by cargo-deny itself.
deny:
    cargo deny check

ci:
    .ci/run
