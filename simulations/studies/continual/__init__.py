"""Studies of continual learning: centers or tasks arrive one after another and train one adapter on."""
