"""AMQP brokers: consuming, publishing with confirms, declaring. The only package that imports pika."""
