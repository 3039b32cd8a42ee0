"""Reports: sections as markdown, sample grids as pictures, results as CSV and strict JSON."""
