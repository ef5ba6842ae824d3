"""Pages that open from a disk: one HTML file each, without a network, light or dark, on a phone and on paper."""
