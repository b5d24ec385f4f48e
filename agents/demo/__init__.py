"""The whole product on one machine: broker, worker, rooms or a recording, ad platform, and what people look at."""
