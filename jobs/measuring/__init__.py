"""Parts of `videorl measure`: its options, and where its clips and scores come from."""
