"""Still images: readers, data sets with their splits, and encoders that turn intensities into spikes."""
