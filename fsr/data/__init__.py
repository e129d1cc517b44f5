"""Images, image-level labels and views of VOC 2012, COCO 2014 and the synthetic set."""
